-- The latest state of each route of a node's forwarder, and the health of the
-- node that decisions and steps predicted and met.
CREATE TABLE route (
    stream   INTEGER NOT NULL REFERENCES stream(id),
    name     TEXT    NOT NULL,
    seq      INTEGER NOT NULL,
    listen   TEXT    NOT NULL,
    reached  INTEGER NOT NULL,
    -- JSON arrays, as they came.
    callers  TEXT    NOT NULL,
    backends TEXT    NOT NULL,
    since_ms INTEGER NOT NULL,
    PRIMARY KEY (stream, name)
) STRICT, WITHOUT ROWID;

ALTER TABLE incident ADD COLUMN health REAL;
ALTER TABLE incident ADD COLUMN predicted REAL;
ALTER TABLE incident ADD COLUMN step_health REAL;
ALTER TABLE incident ADD COLUMN step_predicted REAL;

-- What the timelines are made of: few among aggregates and observations.
CREATE INDEX event_told ON event(id) WHERE kind IN
    ('boot', 'incident-opened', 'decided', 'step', 'incident-closed', 'alarm', 'route', 'note', 'gap');
