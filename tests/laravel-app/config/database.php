<?php

return [
    'default' => 'sqlite',
    'connections' => [
        'sqlite' => [
            'driver' => 'sqlite',
            'database' => env('EMBUDO_DATABASE', ':memory:'),
            'prefix' => '',
            'options' => [
                // Several workers write: one waits for another, in seconds.
                PDO::ATTR_TIMEOUT => 10,
            ],
        ],
    ],
    'migrations' => 'migrations',
];
