-- How the budget of each class of a node stands, in capacity-seconds.
CREATE TABLE budget (
    stream   INTEGER NOT NULL REFERENCES stream(id),
    class    TEXT    NOT NULL,
    seq      INTEGER NOT NULL,
    beta     REAL    NOT NULL,
    balance  REAL    NOT NULL,
    reserved REAL    NOT NULL,
    overruns INTEGER NOT NULL,
    since_ms INTEGER NOT NULL,
    PRIMARY KEY (stream, class)
) STRICT, WITHOUT ROWID;
