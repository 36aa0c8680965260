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

    // Middleware, by its class, that runs once for a batch and not for each item, besides Laravel's own throttle.
    'once' => [],

    // Passes over an item whose timestamp is older than that of the session's last. Only a cache that all servers
    // share, and that has locks, keeps the promise: redis, memcached, database, dynamodb; file where there is one server.
    'fence' => [
        'enabled' => env('EMBUDO_FENCE', false),
        'store' => env('EMBUDO_FENCE_STORE'),
        'remember_seconds' => 86400,
    ],
];
