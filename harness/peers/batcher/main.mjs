// A gateway that batches its own calls to Laravel: 50 QRs or 5 s, whichever comes first; a status cache in Redis
// for 60 s; a circuit breaker that opens after 5 failures for 60 s; retries with jitter.
//
// The gateway's events come as lines of JSON on standard input, each answered by one line when its update is
// taken; a pipe and no HTTP, since all of this would be one process with the gateway.
//
//   {"id":1,"event":"qr","session":"…","qr":"2@…"}   {"id":1,"ok":true,"sent":[["qr","2@…","queued"],…]}
//
// The program ends when its input does.

import { createInterface } from 'node:readline';

import { Batch } from './batch.mjs';
import { Breaker } from './breaker.mjs';
import { Laravel } from './laravel.mjs';
import { StatusCache } from './status-cache.mjs';

const QRS = { items: 50, windowMs: 5_000 };
const STATES = { items: 100, windowMs: 5_000 };
const CACHE_TTL_S = 60;
const BREAKER = { failures: 5, openMs: 60_000 };

const { LARAVEL_URL, REDIS_SOCKET, CALL_TIMEOUT_MS } = process.env;
const laravel = new Laravel(LARAVEL_URL, Number(CALL_TIMEOUT_MS), new Breaker(BREAKER));
const cache = new StatusCache(REDIS_SOCKET, CACHE_TTL_S);
const item = (session, value) => ({ session_id: session, sessionId: session, ...value, timestamp: Date.now() });
const qrs = new Batch(QRS, (items) => laravel.post('/api/qr/batch', 'qrs', items));
const states = new Batch(STATES, (items) => laravel.post('/api/whatsapp/status/batch', 'statuses', items));

/** The state of a session, from the cache or from Laravel. Throws where nobody knows it. */
async function status(session) {
  const cached = await cache.get(session);
  if (cached !== null) return cached;
  const asked = await laravel.status(session);
  await cache.set(session, asked);
  return asked;
}

/** `known` is the state that Laravel has, or will have with what is queued. */
async function sendState(session, state, known) {
  // Written through: the next read is answered with what was sent last, and its 60 s begin anew.
  await cache.set(session, state);
  if (known === state) return ['status', state, 'duplicate'];
  states.add(session, item(session, { estado_qr: state }));
  return ['status', state, 'queued'];
}

const events = {
  async qr({ session, qr }) {
    const known = await status(session);
    qrs.add(session, item(session, { qr }));
    return [['qr', qr, 'queued'], await sendState(session, 'pending', known)];
  },
  async expired({ session }) {
    const known = await status(session);
    return known === 'pending' ? [await sendState(session, 'inactive', known)] : [];
  },
  active: async ({ session }) => [await sendState(session, 'active', await cache.get(session))],
  logged_out: async ({ session }) => [await sendState(session, 'inactive', await cache.get(session))],
  async read({ session }) {
    await status(session);
    return [];
  },
  pending: async () => [],
};

async function answer(line) {
  const event = JSON.parse(line);
  let result;
  try {
    result = { ok: true, sent: await events[event.event](event) };
  } catch (error) {
    result = { ok: false, sent: [], error: String(error.message) };
  }
  const pending = qrs.pending() + states.pending();
  const rejected = qrs.rejected + states.rejected;
  process.stdout.write(`${JSON.stringify({ id: event.id, ...result, pending, rejected })}\n`);
}

const lines = createInterface({ input: process.stdin });
lines.on('line', answer);
lines.on('close', () => process.exit(0));
