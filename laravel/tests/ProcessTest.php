<?php

namespace Embudo\Laravel\Tests;

/**
 * What ends a process, in a process of its own: PHP's built-in server with the application, one for each test.
 */
final class ProcessTest extends TestCase
{
    /** @var resource|null */
    private $server = null;

    private string $folder = '';

    private int $port = 0;

    protected function tearDown(): void
    {
        if ($this->server !== null) {
            proc_terminate($this->server, 9);
            proc_close($this->server);
        }
        (new \Illuminate\Filesystem\Filesystem())->deleteDirectory($this->folder);
        parent::tearDown();
    }

    public function testAnItemThatExitsIs500AndTheRestHasNoLine(): void
    {
        $this->serve('if ($request->input("qr") === "bad") { echo "gone"; header("x-bad: 1"); http_response_code(418); exit(1); }');
        [$status, $headers, $body] = $this->send(self::batchOf('a', 'b', 'bad', 'd'));
        self::assertSame([200, [200, 200, 500]], [$status, array_column($body['results'], 'status')]);
        self::assertSame('The item has ended the process.', $body['results'][2]['message']);
        self::assertSame(2, $body['processed']);
        self::assertStringContainsString('x-embudo-batch: 2', $headers);
        self::assertStringContainsString('application/json', $headers);
        self::assertStringNotContainsString('x-bad', $headers);
        self::assertSame("a\nb\nbad\n", $this->written('begun'), 'the fourth was not begun');
        self::assertSame("a\nb\n", $this->written('after'), 'what the first two have left for after the answer has run');
    }

    public function testTheFirstItemMayExit(): void
    {
        $this->serve('die("gone");');
        [$status, $headers, $body] = $this->send(self::batchOf('a', 'b'));
        self::assertSame([200, [500], 0], [$status, array_column($body['results'], 'status'), $body['processed']]);
        self::assertStringContainsString('x-embudo-batch: 2', $headers);
    }

    public function testAnItemThatDumpsAndDiesIsNoHtml(): void
    {
        $this->serve('if ($request->input("qr") === "bad") { dd($request->all()); }');
        [$status, , $body] = $this->send(self::batchOf('a', 'bad', 'c'));
        self::assertSame([200, [200, 500]], [$status, array_column($body['results'], 'status')]);
    }

    public function testMemoryThatHasRunOutEndsAnItem(): void
    {
        $this->serve('if ($request->input("qr") === "bad") { $s = []; for (;;) { $s[] = str_repeat("x", 100000); } }', ['memory_limit' => '64M']);
        [$status, $headers, $body] = $this->send(self::batchOf('a', 'b', 'bad', 'd'));
        self::assertSame([200, [200, 200, 500]], [$status, array_column($body['results'], 'status')]);
        self::assertStringContainsString('x-embudo-batch: 2', $headers);
        self::assertSame("a\nb\n", $this->written('after'));
        self::assertStringContainsString('Allowed memory size', $this->written('laravel.log'), 'Laravel has reported it');
    }

    public function testTimeThatHasRunOutEndsAnItem(): void
    {
        $this->serve('if ($request->input("qr") === "bad") { set_time_limit(1); for (;;) { hash("sha256", "x"); } }');
        [$status, , $body] = $this->send(self::batchOf('a', 'bad', 'c'));
        self::assertSame([200, [200, 500]], [$status, array_column($body['results'], 'status')]);
        self::assertSame("a\n", $this->written('after'));
    }

    public function testAFunctionThatIsDeclaredTwiceEndsAnItem(): void
    {
        $this->serve('if ($request->input("qr") === "bad") { eval("function twice() {} function twice() {}"); }', ['display_errors' => '1']);
        [$status, , $body] = $this->send(self::batchOf('a', 'bad', 'c'));
        self::assertSame([200, [200, 500]], [$status, array_column($body['results'], 'status')]);
    }

    public function testABatchEndsInTimeAndWhatItHasNotBegunHasNoLine(): void
    {
        $this->serve('usleep(300000);', [], ['EMBUDO_MAX_SECONDS' => '1']);
        $from = microtime(true);
        [$status, $headers, $body] = $this->send(self::batchOf(...range('a', 'j')));
        self::assertSame(200, $status);
        self::assertContains(count($body['results']), [1, 2, 3], 'ten of them take three seconds');
        self::assertLessThan(1.9, microtime(true) - $from);
        self::assertStringContainsString('x-embudo-batch: 2', $headers);
    }

    public function testOneItemIsBegunHoweverLateItIs(): void
    {
        $this->serve('usleep(200000);', [], ['EMBUDO_MAX_SECONDS' => '0.05']);
        self::assertSame([200], array_column($this->send(self::batchOf('a', 'b'))[2]['results'], 'status'));
    }

    public function testTheTimeThatPhpHasIsWatched(): void
    {
        $this->serve('usleep(300000);', ['max_execution_time' => '1']);
        self::assertLessThan(4, count($this->send(self::batchOf(...range('a', 'j')))[2]['results']));
    }

    public function testTheTimeThatPhpFpmHasIsWatchedWhereItIsSaid(): void
    {
        $this->serve('usleep(300000);', [], ['EMBUDO_TERMINATE_TIMEOUT' => '1']);
        self::assertLessThan(4, count($this->send(self::batchOf(...range('a', 'j')))[2]['results']));
    }

    public function testWhatIsPrintedAfterTheAnswerIsNotBehindIt(): void
    {
        $this->serve('app()->terminating(static function () { echo "late"; throw new \RuntimeException("late"); });');
        [$status, , $body] = $this->send(self::batchOf('a', 'b'));
        self::assertSame([200, [200, 200]], [$status, array_column($body['results'], 'status')]);
        self::assertSame("a\nb\n", $this->written('after'));
    }

    /**
     * @param  string  $code  of the single route, before it answers
     * @param  array<string, string>  $ini
     * @param  array<string, string>  $environment
     */
    private function serve(string $code, array $ini = [], array $environment = []): void
    {
        $this->folder = sys_get_temp_dir().'/embudo-process-'.bin2hex(random_bytes(6));
        mkdir("{$this->folder}/views", 0700, true);
        $bootstrap = var_export(dirname(__DIR__, 2).'/tests/laravel-app/bootstrap/app.php', true);
        $source = getenv('EMBUDO_SOURCE') ? 'require '.var_export(__DIR__.'/bootstrap.php', true).';' : '';
        file_put_contents("{$this->folder}/index.php", "<?php {$source}
            \$app = require {$bootstrap};
            \$app->booted(static function () use (\$app): void {
                Illuminate\\Support\\Facades\\Route::post('api/qr', static function (Illuminate\\Http\\Request \$request): array {
                    \$note = static fn (string \$file) => file_put_contents(storage_path(\$file), \$request->input('qr').\"\\n\", FILE_APPEND);
                    \$note('begun');
                    app()->terminating(static fn () => \$note('after'));
                    {$code}

                    return [];
                });
            });
            \$kernel = \$app->make(Illuminate\\Contracts\\Http\\Kernel::class);
            \$request = Illuminate\\Http\\Request::capture();
            \$response = \$kernel->handle(\$request);
            \$response->send();
            \$kernel->terminate(\$request, \$response);");
        $socket = stream_socket_server('tcp://127.0.0.1:0');
        $this->port = (int) substr((string) strrchr((string) stream_socket_get_name($socket, false), ':'), 1);
        fclose($socket);
        $command = [getenv('EMBUDO_PHP') ?: PHP_BINARY];
        foreach ($ini + ['display_errors' => '0', 'log_errors' => '0'] as $name => $value) {
            array_push($command, '-d', "{$name}={$value}");
        }
        array_push($command, '-S', "127.0.0.1:{$this->port}", "{$this->folder}/index.php");
        $environment += ['EMBUDO_STORAGE' => $this->folder, 'EMBUDO_PACKAGE' => '1', 'CACHE_DRIVER' => 'array'];
        foreach (['CONFIG', 'ROUTES', 'SERVICES', 'PACKAGES'] as $cache) {
            $environment["APP_{$cache}_CACHE"] = "{$this->folder}/".strtolower($cache).'.php';
        }
        $log = ['file', "{$this->folder}/server.log", 'a'];
        $this->server = proc_open($command, [['file', '/dev/null', 'r'], $log, $log], $pipes, $this->folder, $environment + getenv());
        for ($wait = 0; $wait < 100 && ! @fsockopen('127.0.0.1', $this->port); $wait++) {
            usleep(50000);
        }
    }

    /** @return array{int, string, mixed} */
    private function send(string $body): array
    {
        $socket = fsockopen('127.0.0.1', $this->port, $code, $message, 5);
        stream_set_timeout($socket, 20);
        fwrite($socket, "POST /api/qr/batch HTTP/1.0\r\ncontent-type: application/json\r\naccept: application/json\r\ncontent-length: ".strlen($body)."\r\n\r\n{$body}");
        [$head, $rest] = explode("\r\n\r\n", (string) stream_get_contents($socket), 2);
        fclose($socket);
        preg_match('~^HTTP/\S+ (\d+)~', $head, $status);
        $answer = json_decode($rest, true);
        self::assertIsArray($answer, "no JSON: {$rest}");

        return [(int) $status[1], strtolower($head), $answer];
    }

    private static function batchOf(string ...$qrs): string
    {
        $items = [];
        foreach ($qrs as $at => $qr) {
            $items[] = self::qr($at, $qr);
        }

        return json_encode(['qrs' => $items]);
    }

    /** What the server's application has written, once what comes after the answer is done. */
    private function written(string $name): string
    {
        for ($wait = 0; $wait < 40 && ! is_file("{$this->folder}/{$name}"); $wait++) {
            usleep(50000);
        }
        usleep(100000);

        return (string) @file_get_contents("{$this->folder}/{$name}");
    }
}
