-- Who needs whom on a node by its configuration, as it said last.
CREATE TABLE topology (
    stream   INTEGER PRIMARY KEY REFERENCES stream(id),
    seq      INTEGER NOT NULL,
    -- A JSON array, as it came.
    edges    TEXT    NOT NULL,
    left_out INTEGER NOT NULL
) STRICT;

-- What is asked when an incident is shown: aggregates of a node around it, and incidents
-- with the same fault.
CREATE INDEX event_telemetry ON event(stream, hlc_ms) WHERE kind = 'telemetry';
CREATE INDEX incident_fault ON incident(fault, id);
