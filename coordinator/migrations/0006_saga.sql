-- Plans across nodes that this coordinator has begun: what only their initiator
-- knows, and how they were last seen.
CREATE TABLE saga (
  number INTEGER PRIMARY KEY,
  plan TEXT NOT NULL,
  confidence REAL,
  -- {node: site}
  sites TEXT NOT NULL,
  begun_ms INTEGER NOT NULL,
  ended_ms INTEGER,
  phase TEXT NOT NULL,
  why TEXT,
  -- What a person was called for.
  flag TEXT,
  -- [state of each step, in the order of the plan]
  steps TEXT NOT NULL
);
CREATE INDEX saga_open ON saga(number) WHERE ended_ms IS NULL;

CREATE TABLE saga_decision (
  saga INTEGER NOT NULL REFERENCES saga(number) ON DELETE CASCADE,
  place INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  decision TEXT NOT NULL,
  PRIMARY KEY (saga, place)
) WITHOUT ROWID;
