// Laravel as the batcher sees it: axios, kept-alive connections, retries with jitter, the breaker around each try.

import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

import axios from 'axios';

import { CircuitOpen } from './breaker.mjs';

const TRIES = 3;
const WAIT_MS = 600;
const JITTER_MS = 400;

export class Laravel {
  constructor(baseURL, timeout, breaker) {
    this.breaker = breaker;
    this.http = axios.create({
      baseURL,
      timeout,
      httpAgent: new http.Agent({ keepAlive: true }),
      // What Laravel says no to is an answer; only what may be better next time is an error.
      validateStatus: (status) => status < 500 && status !== 429,
    });
  }

  async status(session) {
    const { status, data } = await this.retried(() => this.http.get(`/api/whatsapp/status/${session}`));
    if (status !== 200) throw new Error(`the status of a session is answered ${status}`);
    return data.estado_qr;
  }

  /** Sends a batch. The items that the validation names are left out, and the others sent again. */
  async post(path, field, items) {
    const refused = [];
    while (items.length > 0) {
      const batch = items;
      const { status, data } = await this.retried(() => this.http.post(path, { [field]: batch }));
      if (status >= 200 && status < 300) break;
      const named = new Set(Object.keys(data?.errors ?? {}).map((key) => Number(key.split('.')[1])));
      const wrong = batch.filter((_, index) => named.has(index));
      // An answer that names nobody is about the batch: it would be the same next time.
      refused.push(...(wrong.length > 0 ? wrong : batch));
      items = wrong.length > 0 ? batch.filter((_, index) => !named.has(index)) : [];
    }
    return refused;
  }

  async retried(call) {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.breaker.run(call);
      } catch (error) {
        if (error instanceof CircuitOpen || attempt === TRIES) throw error;
        await sleep(WAIT_MS * 2 ** (attempt - 1) + Math.random() * JITTER_MS);
      }
    }
  }
}
