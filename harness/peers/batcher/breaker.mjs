// A circuit breaker: closed, open for a while after some failures in a row, then one trial.

export class Breaker {
  constructor({ failures, openMs }) {
    this.failuresMax = failures;
    this.openMs = openMs;
    this.failures = 0;
    this.openUntil = 0;
    this.trying = false;
  }

  async run(call) {
    if (this.failures >= this.failuresMax) {
      if (this.trying || Date.now() < this.openUntil) throw new CircuitOpen();
      this.trying = true;
    }
    try {
      const result = await call();
      this.failures = 0;
      return result;
    } catch (error) {
      this.failures += 1;
      if (this.failures >= this.failuresMax) this.openUntil = Date.now() + this.openMs;
      throw error;
    } finally {
      this.trying = false;
    }
  }
}

export class CircuitOpen extends Error {
  constructor() {
    super('the circuit is open');
  }
}
