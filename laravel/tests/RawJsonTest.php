<?php

namespace Embudo\Laravel\Tests;

use Embudo\Laravel\Batch\RawJson;
use PHPUnit\Framework\Attributes\DataProvider;

final class RawJsonTest extends TestCase
{
    public function testTheElementsAreTheBytesThatWereSent(): void
    {
        $elements = ['{"a":1.0}', '{ }', '[]', '"x,]\\"}"', '-1e3', 'null', '{"a":{"b":["}"]},"c":"\\\\"}', '"\\u00e9é"'];
        foreach ([',', " ,\n\t"] as $comma) {
            $json = '{"other":["no"], "qrs" : [ '.implode($comma, $elements).' ] ,"last":0}';
            self::assertNotNull(json_decode($json));
            self::assertSame($elements, RawJson::elements($json, 'qrs'));
        }
    }

    public function testOfEqualNamesTheLastIsMeant(): void
    {
        self::assertSame(['2'], RawJson::elements('{"qrs":[1],"qrs":[2]}', 'qrs'));
        self::assertSame([], RawJson::elements('{"qrs":[1],"qrs":{}}', 'qrs'));
        self::assertSame(['1'], RawJson::elements('{"q\\u0072s":[1]}', 'qrs'), 'a name may be written otherwise');
    }

    /** @dataProvider additions */
    #[DataProvider('additions')]
    public function testWithoutWhatWasAddedItIsWhatWasSent(string $sent, string $with): void
    {
        self::assertNotNull(json_decode($with));
        self::assertSame($sent, RawJson::without($with, ['timestamp', 'session_id']));
    }

    public static function additions(): array
    {
        return [
            'at the end' => ['{"a":1.0}', '{"a":1.0,"timestamp":5}'],
            'two of them' => ['{"a":{}}', '{"a":{},"session_id":"x","timestamp":5}'],
            'at the beginning' => ['{"a":[]}', '{"session_id":"x","a":[]}'],
            'on both sides' => ['{"a":1}', '{"session_id":"x","a":1,"timestamp":5}'],
            'in the middle' => ['{"a":1,"b":2}', '{"a":1,"timestamp":5,"b":2}'],
            'to nothing' => ['{}', '{"session_id":"x"}'],
            'two to nothing' => ['{}', '{"session_id":"x","timestamp":5}'],
            'before a blank' => ['{ "a" : 1 }', '{ "a" : 1 ,"timestamp":5}'],
            'nothing' => ['{"a":{"timestamp":1}}', '{"a":{"timestamp":1}}'],
            'brackets in strings' => ['{"a":"},{\\"timestamp\\":1"}', '{"a":"},{\\"timestamp\\":1","timestamp":5}'],
        ];
    }

    public function testWhatIsCutFromAnyObjectIsThatMemberAndNoMore(): void
    {
        mt_srand(7);
        for ($round = 0; $round < 500; $round++) {
            $members = [];
            for ($at = mt_rand(0, 5); $at > 0; $at--) {
                $members["m{$at}"] = [1.5, 'a"\\b', ['x' => ['}', []]], null, new \stdClass(), "é\n"][mt_rand(0, 5)];
            }
            $sent = json_encode((object) $members, mt_rand(0, 1) ? JSON_PRETTY_PRINT : 0);
            $end = strrpos($sent, '}');
            $with = substr($sent, 0, $end).($members === [] ? '' : ',').'"timestamp":'.$round.'}';
            self::assertSame($sent, RawJson::without($with, ['timestamp']));
        }
    }
}
