//! The models that both arms share: the gateway and Laravel.
