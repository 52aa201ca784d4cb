-- The record that symptom, fault and confidence come from: an incident is told again where a
-- closer look has found another cause. The first one says when it began.
ALTER TABLE incident ADD COLUMN fault_seq INTEGER;
UPDATE incident SET fault_seq = opened_seq;
