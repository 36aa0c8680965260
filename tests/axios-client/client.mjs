// The gateway's own client, as it is configured there: axios on kept-alive connections with a timeout of 15 s, three
// tries on 429, 5xx and network errors, and around them an interceptor that retries any error three times more.
//
//   node client.mjs <base URL> <session> <call> …
//
// Makes the calls one after the other and prints one line of JSON for each: how its promise settled. Waits between
// tries are divided by WAITS_DIVIDED_BY. A rejection that nobody handles ends the program with a code of its own.

import http from 'node:http';
import https from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';

import axios from 'axios';

const UNHANDLED = 70;
const divided = Number(process.env.WAITS_DIVIDED_BY ?? 1);

process.on('unhandledRejection', (reason) => {
  console.error('unhandled rejection', reason);
  process.exit(UNHANDLED);
});

const [baseURL, session, ...calls] = process.argv.slice(2);
const sendOnce = axios.getAdapter('http');

/** The inner loop, around a send. */
async function sendThrice(config) {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await sendOnce(config);
    } catch (error) {
      const status = error.response?.status;
      const transient = status === undefined || status === 429 || status >= 500;
      if (!transient || attempt >= 2) throw error;
      await sleep((600 * 2 ** attempt + Math.random() * 400) / divided);
    }
  }
}

const client = axios.create({
  baseURL,
  adapter: sendThrice,
  timeout: 15_000,
  headers: { 'Content-Type': 'application/json' },
  httpAgent: new http.Agent({ keepAlive: true }),
  httpsAgent: new https.Agent({ keepAlive: true }),
});

// The outer loop, which starts the inner one again.
client.interceptors.response.use(undefined, async (error) => {
  const { config } = error;
  config.outerTries = (config.outerTries ?? 0) + 1;
  if (config.outerTries > 3) throw error;
  await sleep((1_000 * 2 ** config.outerTries) / divided);
  return client.request(config);
});

/** What the name of a call stands for: `status`, `account`, `qr=2@…`, `state=pending`; without a value it is left out. */
function request(call) {
  const [name, value] = call.split('=', 2);
  const post = (url, fields) => ({ method: 'post', url, data: { session_id: session, ...fields } });
  const requests = {
    status: () => ({ method: 'get', url: `/whatsapp/status/${session}` }),
    account: () => ({ method: 'get', url: `/whatsapp/account/${session}` }),
    qr: () => post('/qr', { qr: value }),
    state: () => post('/whatsapp/status', { estado_qr: value }),
  };
  return requests[name]();
}

for (const call of calls) {
  let settled;
  try {
    const { status, data } = await client.request(request(call));
    settled = { call, resolved: true, status, data };
  } catch (error) {
    settled = { call, resolved: false, status: error.response?.status ?? null, data: error.response?.data ?? null };
  }
  console.log(JSON.stringify(settled));
}
