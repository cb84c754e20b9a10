// XFM, last step. Gathers documents in micro-batches, stores each batch in the loader's own pond in one transaction, and
// uploads it to the lake. Only then are they acknowledged. After a crash between any two of these steps they come again:
// the pond knows a document by its digest, and so does the lake, whichever loader brings it.
//
// Identifiers must be unique in the lake, into which many ponds flow. So each pond gives out those of ranges of its own,
// which it takes off the queue `pond-seq`: one at the loader's first run, and another when that is used up.
import { batch, type Context, decode, env, reject, topology, validate, type Writer, writer } from "millrace";
import { errors, messaging } from "./brokers.ts";
import { Identifiers } from "./identifiers.ts";
import { Lake } from "./lake.ts";
import { closedPond, Pond } from "./pond.ts";
import { isKnown, type Load, loadSchema } from "./statements.ts";

const pondUrl = env("POND_URL", "sqlite:out/xfm/pond.sqlite");
const lakeUrl = env("LAKE_URL", "sqlite:out/xfm/lake.sqlite");

export default topology("xfm-loader", (t) => {
  t.from(messaging.source({ queue: "load-sql", prefetch: 100 }))
    .pipe(
      decode("json"),
      validate(loadSchema),
      reject((load) => !isKnown(load), "it holds a statement that a loader does not execute"),
      batch({ count: 25, bytes: "4MiB", within: "200ms" }),
    )
    .to(writer<Load>({ name: "pond", open: openLoader }));

  t.deadLetters(errors);
});

async function openLoader(context: Context): Promise<Writer<Load>> {
  const pond = await Pond.open(pondUrl);
  let lake: Lake | undefined;
  const close = async () => {
    await pond.close();
    await lake?.close();
  };
  try {
    if (!pond.isOpen) throw closedPond();
    lake = await Lake.open(lakeUrl);
    const loader = new Loader(context, pond, lake);
    await loader.begin();
    return { write: (messages) => loader.load(messages.map(({ value }) => value)), close };
  } catch (error) {
    await close();
    throw error;
  }
}

class Loader {
  readonly #identifiers: Identifiers;
  readonly #pond: Pond;
  readonly #lake: Lake;

  constructor(context: Context, pond: Pond, lake: Lake) {
    this.#identifiers = new Identifiers(context, pond, lake);
    this.#pond = pond;
    this.#lake = lake;
  }

  /** First what a crash left undone, then the first range, if this is the first run. */
  async begin(): Promise<void> {
    await this.#identifiers.recover();
    await this.#upload();
    await this.#identifiers.ensure(1);
  }

  async load(loads: readonly Load[]): Promise<void> {
    await this.#identifiers.ensure(loads.length);
    await this.#pond.store(loads);
    await this.#upload();
  }

  #upload(): Promise<void> {
    return this.#pond.flush((documents) => this.#lake.upload(documents));
  }
}
