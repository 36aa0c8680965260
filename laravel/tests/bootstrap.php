<?php

/* The application that the tests of the whole way run too: real routes and controllers, and no Composer needed. */

require __DIR__.'/source.php';
require __DIR__.'/../../tests/laravel-app/bootstrap/autoload.php';
require __DIR__.'/TestCase.php';
