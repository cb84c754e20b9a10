import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  bufferCount,
  EMPTY,
  map as mapEach,
  merge,
  mergeMap,
  type Observable,
  of,
  Subject,
  take,
  tap,
  throwError,
} from "rxjs";
import type { MillraceError } from "../errors.ts";
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
      [/message that had left/, (messages) => messages.pipe(mergeMap((m) => of(m, m.with(2))))],
      [/message that had left/, (messages) => messages.pipe(tap((m) => m.drop()))],
      [/no message/, (messages) => messages.pipe(mapEach((m) => ({ ...m }) as StageMessage<number>))],
      [/completed before its input/, (messages) => messages.pipe(take(1))],
      [/failed: broken/, (messages) => messages.pipe(mergeMap(() => throwError(() => new Error("broken"))))],
      [/returned no Observable/, () => 5 as never],
      [/returned no Observable/, () => undefined as never],
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
    const [failure] = bed.failures as MillraceError[];
    assert.match(failure?.message ?? "", expected);
    assert.match(failure!.message, new RegExp(`^${bed.context.node}: `));
    // It came up while running: another start may go well.
    assert.deepEqual([failure!.code, failure!.class], ["stage-broken", "system"]);
    assert.ok(failure!.remedy);
  }
});

test("property: whatever operators do with messages, each has one fate, and what comes out can be settled", () => {
  /** What is done with a message: it goes on at once, later, or never, or is dropped, at once or later. */
  const deed = fc.constantFrom("emit", "emit", "keep", "dropNow", "dropLater", "forget");
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.constantFrom("a", "b"), fc.array(deed, { minLength: 1, maxLength: 5 })), {
        maxLength: 10,
      }),
      fc.integer({ min: 0, max: 10 }),
      (chunks, revokeAfter) => {
        const kept: StageMessage<string>[] = [];
        const dropped: StageMessage<string>[] = [];
        const forgotten: StageMessage<string>[] = [];
        const late = new Subject<StageMessage<string>>();
        const bed = bedOf<string, string>((messages) =>
          merge(
            late,
            messages.pipe(
              mergeMap((m) => {
                if (m.value === "emit") return of(m);
                if (m.value === "dropNow") m.drop();
                if (m.value === "keep") kept.push(m);
                if (m.value === "dropLater") dropped.push(m);
                if (m.value === "forget") forgotten.push(m);
                return EMPTY;
              }),
            ),
          ),
        );
        let given = 0;
        /** Messages of lane a below this position were returned. */
        let returned = 0;
        chunks.forEach(([lane, deeds], i) => {
          bed.sendValues(deeds, lane);
          if (lane === "a") given += deeds.length;
          if (i !== revokeAfter) return;
          returned = given;
          bed.revoke("a");
        });
        const alive = (m: StageMessage<string>) => m.origin.target !== "a" || m.origin.position >= returned;
        for (const m of kept) late.next(m.with("kept"));
        for (const m of dropped) m.drop();
        const out = bed.emitted();
        assert.equal(out.filter(({ value }) => value === "kept").length, kept.filter(alive).length);
        bed.deliver();
        if (returned === 0) {
          const count = (outcome: string) => [...bed.outcomes.values()].filter((o) => o === outcome).length;
          const all = chunks.flatMap(([, deeds]) => deeds);
          const done = (...deeds: string[]) => all.filter((one) => deeds.includes(one)).length;
          assert.equal(count("delivered"), done("emit", "keep"));
          assert.equal(count("filtered"), done("dropNow", "dropLater"));
          assert.equal(bed.lane("a").inFlight + bed.lane("b").inFlight, forgotten.length);
        }
        assert.equal(bed.kept(), forgotten.filter(alive).length, "what the author's code keeps is known");
        assert.deepEqual(bed.failures, []);
      },
    ),
  );
});
