<?php

namespace Embudo\Laravel;

use Illuminate\Contracts\Foundation\Application;
use Illuminate\Http\Request;
use Symfony\Component\HttpFoundation\Response;

/**
 * Where the batch routes lead. `TakesBatches` has answered before, unless the application runs without middleware, as in
 * some tests of its own.
 */
final class BatchController
{
    public function __construct(private TakesBatches $middleware, private Application $app)
    {
    }

    public function __invoke(Request $batch): Response
    {
        $answer = $this->middleware->answer($batch, $batch->route());
        $this->app->terminating(fn () => $this->middleware->end($batch));

        return $answer;
    }
}
