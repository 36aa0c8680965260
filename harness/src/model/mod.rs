//! The models that both arms share: the gateway, Laravel and the webhook.
//!
//! Nothing here opens a socket or looks at a clock. Time comes in as `now_ms`, chance from a seed,
//! so that the simulation can run a day of traffic in a second and the live arm can run the very
//! same sessions against a real Envoy. What differs between the arms is only who moves the bytes.
//!
//! # Layout
//! * [`http`]: the request and the response both models speak in, and the kinds they are counted by.
//! * [`laravel`]: the receiver, with its validation, its journal and its faults.
//! * [`webhook`]: where updates go while Laravel cannot take them, and what it does not want.
//! * [`gateway`]: the sender: sessions, their QR cycles, and the retries that multiply a slow answer.
//! * [`order`]: what the two together must show: never an older value after a newer one.
//! * [`reads`]: and that every read was answered with Laravel's own word.

pub mod gateway;
pub mod http;
pub mod laravel;
pub mod order;
pub mod reads;
pub mod webhook;
