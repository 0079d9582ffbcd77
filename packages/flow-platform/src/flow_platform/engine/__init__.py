"""What decides: submit, claim, record, sweep. Each writes through the store and wakes whoever waits."""
