<?php

return [
    // Whether the batch routes are there. Without them Embudo posts the items one by one.
    'enabled' => env('EMBUDO_ENABLED', true),

    // What may precede the single routes; a prefix under which the application has none is passed over.
    'prefixes' => ['api', ''],

    // The single route that serves each item, and the field in which a batch has them.
    'routes' => [
        ['single' => 'qr', 'batch' => 'qr/batch', 'field' => 'qrs'],
        ['single' => 'whatsapp/status', 'batch' => 'whatsapp/status/batch', 'field' => 'statuses'],
    ],

    // A batch with more items is answered with 422. Embudo sends 100 at most unless told otherwise.
    'max_items' => 500,

    // A batch ends in time: what it has not begun by then comes again at once. Less than Embudo's `call_timeout_ms`, and
    // never more than four fifths of PHP's `max_execution_time`. PHP cannot tell PHP-FPM's `request_terminate_timeout`:
    // say it here in seconds where it is below 12.
    'max_seconds' => env('EMBUDO_MAX_SECONDS', 10),
    'request_terminate_timeout' => env('EMBUDO_TERMINATE_TIMEOUT', 0),

    // Middleware, by its class, that lets a batch in by its first item and does not run for the others. Laravel's own
    // throttle counts a batch once without being named here.
    'once' => [],

    // Bindings that are made anew for each item, though a provider has resolved them before; `scoped` ones always are.
    'flush' => [],

    // Whether each item has database connections of its own: for what is said to a connection by SQL (SET, search_path).
    'reconnect' => false,

    // Passes over an item that is older than the session's last, by Embudo's sequence, or by timestamp without one. Only a cache that all servers
    // share, and that has locks, keeps the promise: redis, memcached, database, dynamodb; file where there is one server.
    'fence' => [
        'enabled' => env('EMBUDO_FENCE', false),
        'store' => env('EMBUDO_FENCE_STORE'),
        'remember_seconds' => 86400,
    ],
];
