// The state of each session in Redis, for as long as it may be trusted.

import Redis from 'ioredis';

export class StatusCache {
  constructor(path, ttlSeconds) {
    // Commands of one turn of the event loop share a write.
    this.redis = new Redis({ path, enableAutoPipelining: true });
    this.ttlSeconds = ttlSeconds;
  }

  get(session) {
    return this.redis.get(key(session));
  }

  set(session, state) {
    return this.redis.set(key(session), state, 'EX', this.ttlSeconds);
  }
}

const key = (session) => `whatsapp:status:${session}`;
