// What waits for the next batch of one route: the newest value of each session.

export class Batch {
  /** `send` resolves to the indexes that Laravel refused, and throws where the batch may be tried again. */
  constructor({ items, windowMs }, send) {
    this.items = items;
    this.windowMs = windowMs;
    this.send = send;
    this.waiting = new Map();
    this.sending = 0;
    this.timer = null;
    this.rejected = 0;
  }

  add(session, item) {
    this.waiting.set(session, item);
    this.schedule();
  }

  pending() {
    return this.waiting.size + this.sending;
  }

  schedule() {
    // One batch at a time: two could overtake each other.
    if (this.sending > 0) return;
    if (this.waiting.size >= this.items) this.flush();
    else if (this.waiting.size > 0) this.timer ??= setTimeout(() => this.flush(), this.windowMs);
  }

  async flush() {
    clearTimeout(this.timer);
    this.timer = null;
    const batch = [...this.waiting].slice(0, this.items);
    for (const [session] of batch) this.waiting.delete(session);
    this.sending = batch.length;
    let failed = false;
    try {
      const refused = await this.send(batch.map(([, item]) => item));
      this.rejected += refused.length;
    } catch {
      failed = true;
      this.putBack(batch);
    }
    this.sending = 0;
    // After a failure the window passes first, however many wait.
    if (failed) this.timer = setTimeout(() => this.flush(), this.windowMs);
    else this.schedule();
  }

  /** Before what has come since, and only where nothing newer has. */
  putBack(batch) {
    const older = batch.filter(([session]) => !this.waiting.has(session));
    this.waiting = new Map([...older, ...this.waiting]);
  }
}
