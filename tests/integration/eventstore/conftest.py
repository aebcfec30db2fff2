from tests.integration.eventstore.fixtures import (  # noqa: F401  (fixtures, for all tests here)
    log,
    log_environment,
    log_factory,
    new_factory,
    new_product,
    product,
)
