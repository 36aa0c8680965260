<?php

namespace Embudo\Laravel\Tests\Conformance;

use Embudo\Laravel\Tests\TestCase;
use Illuminate\Contracts\Http\Kernel;
use Illuminate\Http\Request;
use Illuminate\Log\Events\MessageLogged;
use Illuminate\Queue\Queue;
use PHPUnit\Framework\Attributes\DataProvider;
use Symfony\Component\HttpFoundation\Request as SymfonyRequest;
use Symfony\Component\HttpFoundation\Response;
use Symfony\Component\HttpFoundation\StreamedResponse;

require_once __DIR__.'/Behaviour.php';
require_once __DIR__.'/Seen.php';
require_once __DIR__.'/parts.php';

/**
 * Fifty items are fifty requests: each behaviour is the same alone, and as item 1, 2 and 50 of a batch.
 *
 * The same is: the answer, the rows of the session, and all that is seen meanwhile, in order: what the behaviour notes,
 * every event, every line of the log with its context, what jobs and callbacks do after the answer.
 */
final class ConformanceTest extends TestCase
{
    private const ME = 7;

    /** @dataProvider behaviours */
    #[DataProvider('behaviours')]
    public function testItIsTheSameInABatch(Behaviour $behaviour): void
    {
        if ((int) $this->app->version() < $behaviour->since) {
            // Not skipped: the number of tests says how many behaviours this Laravel has.
            self::assertLessThan($behaviour->since, (int) $this->app->version());

            return;
        }
        $alone = $this->alone($behaviour);
        foreach ([1, 2, 50] as $position) {
            self::assertSame($alone, $this->inABatch($behaviour, $position), "as item {$position}");
        }
    }

    /** @return array<string, array{Behaviour}> */
    public static function behaviours(): array
    {
        return array_map(static fn (Behaviour $behaviour) => [$behaviour], require __DIR__.'/behaviours.php');
    }

    /** @return array<string, mixed> */
    private function alone(Behaviour $behaviour): array
    {
        $this->prepare($behaviour);
        // As a server does it: Laravel's test client neither sends an answer nor throws away what is printed.
        $kernel = $this->app->make(Kernel::class);
        $body = json_encode(self::item($behaviour->item, self::ME));
        $server = $this->transformHeadersToServerVars($behaviour->headers + ['Content-Type' => 'application/json', 'Accept' => 'application/json', 'Content-Length' => strlen($body)]);
        $request = Request::createFromBase(SymfonyRequest::create('/api/qr', 'POST', [], [], [], $server, $body));
        ob_start();
        $answer = $kernel->handle($request);
        if ($answer instanceof StreamedResponse) {
            $answer->sendContent();
        }
        ob_end_clean();
        $kernel->terminate($request, $answer);

        return $this->seen(self::lineOf($answer));
    }

    /** @return array<string, mixed> */
    private function inABatch(Behaviour $behaviour, int $position): array
    {
        $this->prepare($behaviour);
        $items = [];
        for ($at = 1; $at <= max($position, 3); $at++) {
            $item = $at === $position ? self::item($behaviour->item, self::ME) : self::item($behaviour->others, 100 + $at);
            $items[] = $item + ['timestamp' => $at];
        }
        $said = array_map(static fn ($item) => ['seq' => $item['timestamp'], 'at' => 1, 'added' => ['timestamp']], $items);
        $body = ['qrs' => $items, 'embudo' => ['epoch' => 'e', 'items' => $said]];
        $answer = $this->postJson('/api/qr/batch', $body, $behaviour->headers);

        return $this->seen($answer->json('results.'.($position - 1)) ?? ['status' => $answer->getStatusCode(), 'results' => null]);
    }

    private function prepare(Behaviour $behaviour): void
    {
        // A static, to which each application in this process has added.
        Queue::createPayloadUsing(null);
        $this->with(static function ($app) use ($behaviour): void {
            config(['logging.channels.null' => ['driver' => 'monolog', 'handler' => \Monolog\Handler\NullHandler::class], 'logging.default' => 'null']);
            $app['events']->listen('*', static function (string $name, array $payload): void {
                Seen::note($name, ($payload[0] ?? null) instanceof MessageLogged ? [$payload[0]->message, array_diff_key($payload[0]->context, ['exception' => 0])] : null);
            });
            ($behaviour->set)($app);
        });
        Seen::nothing();
    }

    /**
     * @param  array<string, mixed>  $line
     * @return array<string, mixed>
     */
    private function seen(array $line): array
    {
        $seen = Seen::of(self::uuid(self::ME));
        $rows = $this->app['db']->connection('sqlite')->table('accounts')->where('session_id', self::uuid(self::ME))->get();

        return ['answer' => $line, 'rows' => $rows->map(static fn ($row) => (array) $row)->all(), 'seen' => $seen];
    }

    /**
     * The line that an answer has to have in `results`.
     *
     * @return array<string, mixed>
     */
    private static function lineOf(Response $answer): array
    {
        $body = json_decode((string) $answer->getContent(), true);
        $body = is_array($body) ? $body : [];
        $status = $answer->getStatusCode();
        if ($answer->isRedirection() || ($body['success'] ?? null) === false) {
            $status = 422;
        }
        $line = ['session_id' => self::uuid(self::ME), 'status' => $status];
        foreach ($status < 300 ? ['skipped', 'reason'] : ['message', 'errors'] as $name) {
            if (array_key_exists($name, $body)) {
                $line[$name] = $body[$name];
            }
        }

        return $line;
    }

    /**
     * @param  array<string, mixed>  $members
     * @return array<string, mixed>
     */
    private static function item(array $members, int $session): array
    {
        return ['session_id' => self::uuid($session)] + $members;
    }
}
