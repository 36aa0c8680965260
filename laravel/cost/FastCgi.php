<?php

/** Just enough of FastCGI to post JSON to a PHP-FPM, without a web server whose time would be measured, too. */
final class FastCgi
{
    public function __construct(private string $socket, private string $script)
    {
    }

    /** @return array{int, string} status and body */
    public function post(string $path, string $body): array
    {
        $length = (string) strlen($body);
        $parameters = '';
        foreach ([
            'SCRIPT_FILENAME' => $this->script, 'SCRIPT_NAME' => '/index.php', 'REQUEST_METHOD' => 'POST', 'REQUEST_URI' => $path,
            'QUERY_STRING' => '', 'CONTENT_TYPE' => 'application/json', 'CONTENT_LENGTH' => $length, 'HTTP_ACCEPT' => 'application/json',
            'HTTP_CONTENT_LENGTH' => $length, 'HTTP_HOST' => 'localhost', 'HTTP_AUTHORIZATION' => 'Bearer token', 'SERVER_PROTOCOL' => 'HTTP/1.1',
            'SERVER_NAME' => 'localhost', 'SERVER_PORT' => '80', 'REMOTE_ADDR' => '127.0.0.1',
        ] as $name => $value) {
            $parameters .= self::length($name).self::length($value).$name.$value;
        }
        $socket = stream_socket_client("unix://{$this->socket}", $code, $message, 5);
        stream_set_timeout($socket, 30);
        $stdin = '';
        foreach (str_split($body, 60000) as $part) {
            $stdin .= self::record(5, $part);
        }
        fwrite($socket, self::record(1, "\0\1\0\0\0\0\0\0").self::record(4, $parameters).self::record(4, '').$stdin.self::record(5, ''));
        $output = '';
        while (strlen($head = (string) stream_get_contents($socket, 8)) === 8) {
            $record = unpack('Cversion/Ctype/nid/nlength/Cpadding', $head);
            $content = $record['length'] > 0 ? stream_get_contents($socket, $record['length']) : '';
            if ($record['padding'] > 0) {
                stream_get_contents($socket, $record['padding']);
            }
            $output .= $record['type'] === 6 ? $content : '';
            if ($record['type'] === 3) {
                break;
            }
        }
        fclose($socket);
        [$headers, $answer] = explode("\r\n\r\n", $output, 2) + ['', ''];

        return [preg_match('~^Status: (\d+)~mi', $headers, $found) ? (int) $found[1] : 200, $answer];
    }

    private static function record(int $type, string $content): string
    {
        return pack('CCnnCx', 1, $type, 1, strlen($content), 0).$content;
    }

    private static function length(string $text): string
    {
        return strlen($text) < 128 ? chr(strlen($text)) : pack('N', strlen($text) | 0x80000000);
    }
}
