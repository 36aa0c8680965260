<?php

namespace Embudo\Laravel\Batch;

use Closure;
use Illuminate\Http\Request;

/**
 * Makes the requests that the gateway would have sent: one for each item, with the headers of the batch.
 *
 * They are made of the batch as the server has handed it on, before any middleware of the application.
 */
final class ItemRequests
{
    private Request $template;

    private Closure $fill;

    public function __construct(Request $batch, string $single)
    {
        $query = $batch->server->get('QUERY_STRING');
        $path = $batch->getBaseUrl().'/'.$single;
        $server = $batch->server->all();
        $server['REQUEST_URI'] = $path.(is_string($query) && $query !== '' ? "?{$query}" : '');
        foreach (['PATH_INFO', 'REDIRECT_URL'] as $name) {
            if (isset($server[$name])) {
                $server[$name] = "/{$single}";
            }
        }
        // An item has a length of its own, and is not sent in pieces.
        unset($server['HTTP_TRANSFER_ENCODING']);
        $class = get_class($batch);
        $this->template = new $class($batch->query->all(), [], [], $batch->cookies->all(), [], $server, '');
        // The class whose members they are, also where the application has a request of its own.
        $this->fill = Closure::bind(static function (Request $request, string $body): void {
            $request->content = $body;
        }, null, Request::class);
    }

    public function of(string $body): Request
    {
        $request = clone $this->template;
        ($this->fill)($request, $body);
        $length = (string) strlen($body);
        $request->server->set('CONTENT_LENGTH', $length);
        $request->headers->set('content-length', $length);
        if ($request->isJson()) {
            $request->request = $request->json();
        }

        return $request;
    }
}
