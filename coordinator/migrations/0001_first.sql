-- Times end in _ms: milliseconds since 1970. Those from a node's stamp are for
-- people and may be wrong; order comes from (stream, seq) and from causes.

CREATE TABLE setting (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE node (
    id       INTEGER PRIMARY KEY,
    name     TEXT    NOT NULL UNIQUE,
    site     TEXT    NOT NULL,
    -- The stream that appeared last: a rebuilt store is a new stream, and what
    -- the old one said about services and alarms no longer holds.
    stream   INTEGER,
    first_ms INTEGER NOT NULL,
    seen_ms  INTEGER NOT NULL
) STRICT;

CREATE TABLE stream (
    id          INTEGER PRIMARY KEY,
    uid         BLOB    NOT NULL UNIQUE,
    node        INTEGER NOT NULL REFERENCES node(id),
    -- End of the unbroken run that is stored or known to be lost.
    acked       INTEGER NOT NULL DEFAULT 0,
    -- Highest sequence number stored.
    top         INTEGER NOT NULL DEFAULT 0,
    -- From the latest Boot and Telemetry.
    boot_seq    INTEGER NOT NULL DEFAULT 0,
    booted_ms   INTEGER,
    version     TEXT,
    clock       TEXT,
    backlog_seq INTEGER NOT NULL DEFAULT 0,
    backlog     INTEGER
) STRICT;

CREATE TABLE event (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    stream      INTEGER NOT NULL REFERENCES stream(id),
    seq         INTEGER NOT NULL,
    kind        TEXT    NOT NULL,
    boot        BLOB    NOT NULL,
    hlc_ms      INTEGER NOT NULL,
    hlc_count   INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    -- Number of the incident on its node, for the kinds that name one.
    incident    INTEGER,
    body        TEXT    NOT NULL,
    UNIQUE (stream, seq)
) STRICT;
CREATE INDEX event_incident ON event(stream, incident) WHERE incident IS NOT NULL;
CREATE INDEX event_received ON event(received_ms);

CREATE TABLE cause (
    effect INTEGER NOT NULL REFERENCES event(id) ON DELETE CASCADE,
    uid    BLOB    NOT NULL,
    seq    INTEGER NOT NULL,
    PRIMARY KEY (effect, uid, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX cause_named ON cause(uid, seq);

-- Sequence numbers that will never come.
CREATE TABLE gap (
    stream INTEGER NOT NULL REFERENCES stream(id),
    first  INTEGER NOT NULL,
    last   INTEGER NOT NULL,
    heal   INTEGER NOT NULL,
    PRIMARY KEY (stream, first, last)
) STRICT, WITHOUT ROWID;

-- Projections: every field says which sequence number it came from where order
-- matters, so that arrival in any order ends in the same row.
CREATE TABLE incident (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    stream            INTEGER NOT NULL REFERENCES stream(id),
    number            INTEGER NOT NULL,
    first_ms          INTEGER NOT NULL,
    opened_seq        INTEGER,
    opened_ms         INTEGER,
    service           TEXT,
    symptom           TEXT,
    fault             TEXT,
    confidence        REAL,
    detected_after_ms INTEGER,
    connected         INTEGER,
    decided_seq       INTEGER,
    plan              TEXT,
    source            TEXT,
    refusals          INTEGER NOT NULL DEFAULT 0,
    why               TEXT,
    cost              REAL,
    balance           REAL,
    step_seq          INTEGER,
    step              TEXT,
    phase             TEXT,
    closed_seq        INTEGER,
    closed_ms         INTEGER,
    outcome           TEXT,
    lasted_ms         INTEGER,
    spent             REAL,
    summary           TEXT,
    UNIQUE (stream, number)
) STRICT;
CREATE INDEX incident_open ON incident(id) WHERE closed_seq IS NULL;

CREATE TABLE service (
    stream   INTEGER NOT NULL REFERENCES stream(id),
    name     TEXT    NOT NULL,
    seq      INTEGER NOT NULL,
    state    TEXT    NOT NULL,
    instance INTEGER,
    exit     TEXT,
    since_ms INTEGER NOT NULL,
    PRIMARY KEY (stream, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE alarm (
    stream   INTEGER NOT NULL REFERENCES stream(id),
    name     TEXT    NOT NULL,
    seq      INTEGER NOT NULL,
    service  TEXT,
    severity TEXT    NOT NULL,
    raised   INTEGER NOT NULL,
    since_ms INTEGER NOT NULL,
    text     TEXT    NOT NULL,
    PRIMARY KEY (stream, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE rejected (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms  INTEGER NOT NULL,
    reason TEXT    NOT NULL,
    topic  TEXT    NOT NULL,
    detail TEXT    NOT NULL,
    size   INTEGER NOT NULL,
    head   BLOB    NOT NULL
) STRICT;
