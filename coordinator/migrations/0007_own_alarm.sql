-- Alarms that are the coordinator's own: each stands until it is cleared, and is here
-- until people were told of that.
CREATE TABLE own_alarm (
  -- Of the occurrence; never given twice.
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE,
  severity TEXT NOT NULL,
  text TEXT NOT NULL,
  since_ms INTEGER NOT NULL,
  raised INTEGER NOT NULL DEFAULT 1,
  -- Who deals with it.
  acked TEXT,
  -- How often people were reminded.
  repeats INTEGER NOT NULL DEFAULT 0,
  -- The last word that they were told: raised, acknowledged.
  told TEXT
) STRICT;
