<?php

namespace Embudo\Laravel\Console;

use Embudo\Laravel\Verdict;
use Illuminate\Console\Command;
use Illuminate\Contracts\Http\Kernel;
use Illuminate\Database\Events\QueryExecuted;
use Illuminate\Http\Request;
use Symfony\Component\HttpFoundation\Response;
use Throwable;

final class TryCommand extends Command
{
    protected $signature = 'embudo:try
        {route? : The single route, as `api/qr`; the first that there is otherwise}
        {--item= : The item, as JSON; a sample otherwise}
        {--header=* : A header of the request, as `Authorization: Bearer …`}
        {--keep : Keep what is written to the default database; it is rolled back otherwise}
        {--force : Do not ask in production}';

    protected $description = 'Send one item alone and in a batch of three, and show what differs: answer, queries, events';

    protected $help = 'Exits with 0 where nothing differs, with 1 where something does, and with 2 where there is no such route. '
        ."\n".'What goes elsewhere than into the default database (jobs, mails, caches, other connections) really goes there.';

    private const SAMPLE = '{"session_id":"00000000-0000-4000-8000-00000000e3b0","qr":"2@embudo:try","estado_qr":"pending"}';

    private const ITEMS = 3;

    /** @var array<int, array<int, array{string, string}>> what was seen of each request, by the number of its object */
    private array $seen = [];

    public function handle(): int
    {
        $rule = $this->rule();
        if ($rule === null) {
            $this->error('There is no such single route with a batch route; `php artisan embudo:check` says more.');

            return 2;
        }
        $item = $this->option('item') ?: self::SAMPLE;
        if (! is_object(json_decode($item))) {
            $this->error('The item is no JSON object.');

            return 2;
        }
        if ($this->laravel->environment('production') && ! $this->option('force') && ! $this->confirm('This is production, and the item goes to the single route four times. Go on?')) {
            return 2;
        }
        $this->listen();

        return $this->rolledBack(fn () => $this->compare($rule, $item));
    }

    /** @param array{single: string, batch: string, field: string} $rule */
    private function compare(array $rule, string $item): int
    {
        [$answer, [$alone]] = $this->send($rule['single'], $item);
        $inABatch = '{"'.$rule['field'].'":['.implode(',', array_fill(0, self::ITEMS, $item)).']}';
        [$batch, $each] = $this->send($rule['batch'], $inABatch);
        $body = json_decode((string) $batch->getContent(), true);
        $this->line("alone      {$answer->getStatusCode()}, ".count($alone).' queries and events');
        $this->line("in a batch {$batch->getStatusCode()}, marked ".($batch->headers->get('x-embudo-batch') ?? 'not at all'));
        $value = json_decode($item, true);
        $expected = Verdict::of($value['session_id'] ?? $value['sessionId'] ?? null, $answer);
        $differences = 0;
        for ($at = 0; $at < self::ITEMS; $at++) {
            $line = $body['results'][$at] ?? null;
            if ($line !== $expected) {
                $differences++;
                $this->line('<error>answer</> of item '.($at + 1).': '.json_encode($line).' instead of '.json_encode($expected));
            }
            $differences += $this->differences($at, $alone, $each[$at] ?? []);
        }
        $this->line($differences === 0 ? '<info>Nothing differs.</>' : "{$differences} differences.");

        return $differences === 0 ? 0 : 1;
    }

    /**
     * @param  array<int, array{string, string}>  $alone
     * @param  array<int, array{string, string}>  $item
     */
    private function differences(int $at, array $alone, array $item): int
    {
        $show = static fn (array $seen) => array_map(static fn ($one) => "{$one[0]} {$one[1]}", $seen);
        [$alone, $item] = [$show($alone), $show($item)];
        if ($alone === $item) {
            return 0;
        }
        foreach (array_diff($alone, $item) as $missing) {
            $this->line('<error>missing</> of item '.($at + 1).": {$missing}");
        }
        foreach (array_diff($item, $alone) as $more) {
            $this->line('<error>more</> of item '.($at + 1).": {$more}");
        }
        if (array_diff($alone, $item) === [] && array_diff($item, $alone) === []) {
            $this->line('<error>order</> or number of item '.($at + 1).'\'s queries and events');
        }

        return 1;
    }

    /** @return array{Response, array<int, array<int, array{string, string}>>} the answer, and what was seen of each request */
    private function send(string $path, string $body): array
    {
        $this->seen = [];
        $server = ['CONTENT_TYPE' => 'application/json', 'HTTP_ACCEPT' => 'application/json', 'REMOTE_ADDR' => '127.0.0.1'];
        foreach ($this->option('header') as $header) {
            [$name, $value] = array_map('trim', explode(':', $header, 2) + [1 => '']);
            $server['HTTP_'.strtoupper(strtr($name, '-', '_'))] = $value;
        }
        $request = Request::create('/'.$path, 'POST', [], [], [], $server, $body);
        $before = $this->laravel->make('request');
        $kernel = $this->laravel->make(Kernel::class);
        ob_start();
        try {
            $response = $kernel->handle($request);
            $kernel->terminate($request, $response);
        } finally {
            $printed = (string) ob_get_clean();
            $this->laravel->instance('request', $before);
        }
        if ($printed !== '') {
            $this->line("<comment>printed</> while it was served, which a batch throws away: ".substr(trim($printed), 0, 80));
        }
        $own = $this->seen[spl_object_id($request)] ?? [];
        unset($this->seen[spl_object_id($request)]);

        // A batch's items have requests of their own, in their order; a single is its own.
        return [$response, $this->seen === [] ? [$own] : array_values($this->seen)];
    }

    private function listen(): void
    {
        $this->laravel['events']->listen('*', function (string $name, array $payload): void {
            $request = $this->laravel->make('request');
            // This process has booted a model when the first asked for it; a server's boots it for each.
            $isBoot = strncmp($name, 'eloquent.boot', 13) === 0;
            if ($isBoot || ! $request instanceof Request || $request->server->get('REQUEST_METHOD') !== 'POST') {
                return;
            }
            $about = ($payload[0] ?? null) instanceof QueryExecuted ? $payload[0]->sql : '';
            $this->seen[spl_object_id($request)][] = [$name, $about];
        });
    }

    private function rolledBack(callable $do): int
    {
        if ($this->option('keep') || ! $this->laravel->bound('db')) {
            return $do();
        }
        $connection = $this->laravel['db']->connection();
        try {
            $connection->beginTransaction();
        } catch (Throwable $none) {
            $this->line('<comment>The default database cannot be reached: '.$none->getMessage().'</>');

            return $do();
        }
        try {
            return $do();
        } finally {
            $connection->rollBack();
        }
    }

    /** @return array{single: string, batch: string, field: string}|null */
    private function rule(): ?array
    {
        $wanted = trim((string) $this->argument('route'), '/');
        foreach ($this->laravel['router']->getRoutes()->getRoutes() as $route) {
            $rule = $route->getAction('embudo');
            if ($rule !== null && ($wanted === '' || $wanted === $rule['single'])) {
                return $rule + ['batch' => trim($route->uri(), '/')];
            }
        }

        return null;
    }
}
