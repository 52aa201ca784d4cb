-- The record that `since_ms` is from: the first raise of an alarm that stands,
-- or what cleared it (its own record, or the start of the agent).
ALTER TABLE alarm ADD COLUMN since_seq INTEGER NOT NULL DEFAULT 0;
UPDATE alarm SET since_seq = seq;
