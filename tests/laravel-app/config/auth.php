<?php

/* Nobody logs in; the throttle asks who it is all the same. */
return [
    'defaults' => ['guard' => 'api'],
    'guards' => ['api' => ['driver' => 'token', 'provider' => 'nobody']],
    'providers' => ['nobody' => ['driver' => 'database', 'table' => 'users']],
];
