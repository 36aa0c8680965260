<?php

namespace Embudo\Laravel;

use Illuminate\Http\Request;

/**
 * Makes the requests that the gateway would have sent: one for each item, with the headers of the batch.
 */
final class ItemRequests
{
    public function __construct(private Request $batch, private string $single)
    {
    }

    /**
     * @param  array<string, mixed>  $item  as the application's global middleware has left it
     * @param  object|null  $raw  as it was sent
     */
    public function of(array $item, ?object $raw): Request
    {
        $batch = $this->batch;
        $content = json_encode($raw, JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_PRESERVE_ZERO_FRACTION);
        $uri = $batch->getBaseUrl().'/'.$this->single;
        $request = Request::create($uri, 'POST', [], $batch->cookies->all(), [], $batch->server->all(), $content);
        // Middleware may have changed them since the server took them down.
        $request->headers->replace($batch->headers->all());
        $request->headers->set('content-length', (string) strlen($content));
        $json = clone $batch->json();
        $json->replace($item);
        $request->setJson($json);
        $request->setUserResolver($batch->getUserResolver());
        if ($batch->hasSession()) {
            $request->setLaravelSession($batch->session());
        }

        return $request;
    }
}
