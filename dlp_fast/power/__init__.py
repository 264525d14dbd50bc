"""Power: which poison detection would have found in this very image set, tried with own triggers in copies of it."""
