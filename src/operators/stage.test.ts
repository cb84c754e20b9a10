import assert from "node:assert/strict";
import { test } from "node:test";
import { bufferCount, map as mapEach, mergeMap, type Observable, of, take, tap, throwError } from "rxjs";
import { OperatorBed } from "../testing/operator-bed.ts";
import { type StageMessage, stage } from "./stage.ts";

const bedOf = <A, B>(through: (messages: Observable<StageMessage<A>>) => Observable<StageMessage<B>>) =>
  new OperatorBed(stage(through));
const values = (bed: OperatorBed) => bed.emitted().map(({ value }) => value);

test("messages go through any operators, and settle where they come out", () => {
  const bed = bedOf<number, number>((messages) => messages.pipe(mapEach((m) => m.with(m.value + 1))));
  bed.sendValues([1, 2]);
  assert.deepEqual(values(bed), [2, 3]);
  bed.deliver();
  assert.deepEqual([...bed.outcomes.values()], ["delivered", "delivered"]);
});

test("what is dropped is filtered; what is kept back stays in flight, and comes out at the end", () => {
  const bed = bedOf<number, number>((messages) =>
    messages.pipe(
      tap((m) => m.value === 0 && m.drop()),
      bufferCount(3),
      mergeMap((group) => of(...group.filter((m) => m.value !== 0))),
    ),
  );
  bed.sendValues([0, 1, 2, 3]);
  assert.deepEqual(values(bed), [1, 2]);
  bed.deliver();
  assert.equal(bed.outcomes.get("t:0"), "filtered");
  assert.equal(bed.lane().inFlight, 1);
  bed.complete();
  assert.deepEqual(values(bed), [3]);
  assert.equal(bed.completed, true);
});

test("an ended lane's message that comes out later goes nowhere", () => {
  const bed = bedOf<number, number>((messages) =>
    messages.pipe(
      bufferCount(2),
      mergeMap((group) => of(...group)),
    ),
  );
  bed.sendValues([1], "a");
  bed.revoke("a");
  bed.sendValues([2], "b");
  assert.deepEqual(values(bed), [2]);
});

test("whatever could lose an outcome stops the run", () => {
  const cases: [RegExp, (messages: Observable<StageMessage<number>>) => Observable<StageMessage<number>>][] =
    [
      [/emitted one message twice/, (messages) => messages.pipe(mergeMap((m) => of(m, m.with(2))))],
      [/no message/, (messages) => messages.pipe(mapEach((m) => ({ ...m }) as StageMessage<number>))],
      [/completed before its input/, (messages) => messages.pipe(take(1))],
      [/failed: broken/, (messages) => messages.pipe(mergeMap(() => throwError(() => new Error("broken"))))],
      [
        /the stage threw no/,
        () => {
          throw new Error("no");
        },
      ],
    ];
  for (const [expected, through] of cases) {
    const bed = bedOf(through);
    bed.sendValues([1, 2]);
    assert.match(bed.failures[0]?.message ?? "", expected);
  }
});
