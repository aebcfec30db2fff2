"""The contract of the events on Kafka: a JSON Schema per event type and version, and an AsyncAPI
document over them, both made from the event classes.

    python -m infra.contract docs/contract

writes them there. A schema says what the body of a record is, which is what the log holds, byte
for byte. Only the present version of a class can be made from it: the files of earlier versions
stay as they were written. Objects are open: a reader passes over properties that it doesn't know.
"""
