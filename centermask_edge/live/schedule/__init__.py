"""Which frame goes when: batches over cameras, ages, the governor."""
