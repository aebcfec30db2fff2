#!/bin/sh
# Sees to what a real Kafka needs: Java 17 or later, Maven, and Kafka's jars. Called by `make test`.
# Installs what is missing where the rights allow it, else says what to install. Does nothing when
# all is there. JAVA_HOME is heeded.
set -eu
cd "$(dirname "$0")/../.."

fail() { echo "setup: $*" >&2; exit 1; }

java_program() { if [ -n "${JAVA_HOME:-}" ] && [ -x "$JAVA_HOME/bin/java" ]; then echo "$JAVA_HOME/bin/java"; else command -v java; fi; }

# The number before the first dot: openjdk version "17.0.15", "21", "25-ea".
java_version() {
    program=$(java_program) || return 1
    "$program" -version 2>&1 | sed -n 's/^.* version "\([0-9][0-9]*\).*/\1/p' | head -n 1
}

java_works() { version=$(java_version) && [ -n "$version" ] && [ "$version" -ge 17 ]; }
maven_works() { command -v mvn >/dev/null 2>&1; }

missing=
java_works || missing="Java 17 or later"
maven_works || missing="${missing:+$missing and }Maven"

if [ -n "$missing" ]; then
    how="The tests run a real Kafka, which needs $missing.
  Debian, Ubuntu: apt-get install openjdk-17-jdk-headless maven (or a later JDK)
  Fedora: dnf install java-21-openjdk-headless maven
  or name a JDK that is there: JAVA_HOME=/path/to/jdk make test"
    command -v apt-get >/dev/null 2>&1 || fail "$how"
    if [ "$(id -u)" = 0 ]; then as_root=; elif sudo -n true >/dev/null 2>&1; then as_root='sudo -n'; else
        fail "$how"
    fi
    echo "setup: installing $missing"
    $as_root apt-get update -q >&2 || fail "apt-get update failed. $how"
    packages=
    if ! java_works; then
        for version in 21 17 25; do
            if apt-cache show "openjdk-$version-jdk-headless" >/dev/null 2>&1; then
                packages="openjdk-$version-jdk-headless"
                break
            fi
        done
        [ -n "$packages" ] || fail "no package of Java 17 or later was found. $how"
    fi
    maven_works || packages="$packages maven"
    # shellcheck disable=SC2086 # several packages
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages >&2 ||
        fail "could not install $packages. $how"
    java_works || fail "Java 17 or later is installed, but $(java_program || echo java) is another. $how"
    maven_works || fail "Maven is installed, but mvn is not found. $how"
fi

.venv/bin/python deploy/kafka/broker.py --prepare || fail "Kafka could not be fetched"
