import { setTimeout as pause } from "node:timers/promises";
import type { Random } from "../../src/component/context.ts";
import { until } from "../brokers/until.ts";
import { Millrace } from "../millrace.ts";
import { type Bed, ordered, unordered } from "./bed.ts";
import { check } from "./checker.ts";
import type { Anomaly, Result } from "./result.ts";
import type { Step } from "./schedule.ts";

/** A topology that has something to do and delivers nothing for so long is stuck, ms. */
const patience = 60_000;
const second = 1_000;

export interface OrdealOptions {
  readonly steps: readonly Step[];
  /** Messages fed in all, about. */
  readonly messages: number;
  /** Longest freeze of a runner, ms. */
  readonly longestFreeze: number;
  readonly log: (text: string) => void;
}

const mostStuck = 3;

/** V8 takes what it may have before it collects: a bounded heap shows what is needed, and more ends the runner. */
const heap = ["--max-old-space-size=96", "--max-semi-space-size=16"];

class Stuck extends Error {}

function nameOf(step: Step): string {
  if (step.fault === "trouble") return step.name;
  if (step.fault === "cut") return `cut ${step.side}`;
  if (step.fault === "restart") return `${step.how} of a broker`;
  return step.fault;
}

/**
 * Runs a topology as a process and does to it and to its brokers what the schedule says, each fault at a moment
 * when a part of what was fed before it is delivered and a part is not. Then lets it finish, and checks what the
 * brokers hold.
 */
export class Ordeal {
  readonly #bed: Bed;
  readonly #random: Random;
  readonly #options: OrdealOptions;
  readonly #faults = new Map<string, number>();
  readonly #found = new Map<Anomaly, string[]>();
  readonly #runners = new Set<Millrace>();
  #runner!: Millrace;
  #base = 0;
  #memory = 0;
  #recovery = 0;
  /** Runners that were killed, and epochs and writes that were lost to runners which lived on. */
  #crashes = 0;
  #losses = 0;
  /** What runners that were killed while acknowledgements could not be made left unacknowledged. */
  #overdue = 0;
  /** The frame that the current fault strikes. */
  #where = "";

  constructor(bed: Bed, random: Random, options: OrdealOptions) {
    this.#bed = bed;
    this.#random = random;
    this.#options = options;
  }

  async run(): Promise<Result> {
    const watch = this.#watch();
    const abandon = () => {
      for (const runner of this.#runners) runner.signal("SIGKILL");
    };
    process.once("exit", abandon);
    try {
      await this.#start();
      this.#base = await this.#runner.memory();
      for (const [index, step] of this.#options.steps.entries()) {
        try {
          await this.#suffer(step, index);
          if (index % 10 === 9) await this.#drain();
        } catch (error) {
          await this.#goOnFrom(error, step);
        }
        // What is lost is missed after every fault from then on: more of them would show nothing more.
        if (this.#bed.earlyAcks.size > 0 || this.#found.get("stuck")?.length === mostStuck) break;
      }
      await this.#finish();
    } finally {
      watch.abort();
      process.removeListener("exit", abandon);
      for (const runner of this.#runners) if (!runner.over) await runner.kill();
    }
    return this.#judge();
  }

  /** A topology that is stuck is told of, and another runner takes its place: what it leaves may not be lost. */
  async #goOnFrom(error: unknown, step: Step): Promise<void> {
    if (!(error instanceof Stuck)) throw error;
    const runner = this.#runner;
    this.#find(
      "stuck",
      `after ${nameOf(step)} ${this.#where}: ${error.message}\n${runner.stderr.slice(-3_000)}`,
    );
    this.#options.log(`STUCK after ${nameOf(step)} ${this.#where}: ${error.message}`);
    this.#bed.faults.disarm();
    await this.#crash(runner);
    await this.#start();
  }

  async #suffer(step: Step, index: number): Promise<void> {
    const name = nameOf(step);
    const { log, messages, steps } = this.#options;
    const began = performance.now();
    this.#where = "";
    if (this.#runner.over) {
      this.#find("died", this.#runner.stderr.slice(-2_000));
      await this.#start();
    }
    const mean = messages / steps.length;
    const portion = Math.ceil(mean * (0.4 + this.#random.next()));
    const before = await this.#bed.delivered();
    await this.#bed.feed(portion, ordered);
    await this.#delivers(before + this.#random.next() * portion * 0.8);
    const ended = await this.#strike(step);
    await this.#bed.feed(Math.ceil(mean * 0.1), ordered);
    await this.#delivers(this.#bed.fed);
    const recovery = performance.now() - ended;
    this.#recovery = Math.max(this.#recovery, recovery);
    const seconds = ((performance.now() - began) / second).toFixed(1);
    const where = this.#where === "" ? "" : ` (${this.#where})`;
    log(
      `${index + 1}/${steps.length} ${name}${where}: ${seconds} s, recovered in ${Math.round(recovery)} ms`,
    );
  }

  /** Returns when the fault's end was. */
  async #strike(step: Step): Promise<number> {
    switch (step.fault) {
      case "kill":
        return this.#kill();
      case "restart":
        return this.#restart(step.how);
      case "cut":
        return this.#cut(step.side);
      case "freeze": {
        this.#count("runner frozen");
        this.#runner.signal("SIGSTOP");
        await pause(this.#random.next() * this.#options.longestFreeze);
        this.#runner.signal("SIGCONT");
        return performance.now();
      }
      case "delay":
        return this.#inject("delay", this.#cutKind(), { delay: this.#random.next() * 2 * second });
      case "black hole":
        return this.#inject("black hole", this.#cutKind(), "black hole");
      case "join":
        return this.#membersComeAndGo(1);
      case "storm":
        return this.#membersComeAndGo(8);
      case "trouble": {
        this.#count(step.name);
        const runner = this.#runner;
        await this.#bed.troubles[step.name]!({
          freeze: () => runner.signal("SIGSTOP"),
          thaw: () => runner.signal("SIGCONT"),
        });
        return performance.now();
      }
    }
  }

  async #kill(): Promise<number> {
    this.#count("kill -9 of the runner");
    await this.#crash(this.#runner);
    const again = await this.#bed.inspect();
    this.#where = `${again} to be read again`;
    const ended = performance.now();
    await this.#start();
    return ended;
  }

  async #crash(runner: Millrace): Promise<void> {
    await runner.kill();
    this.#crashes++;
    this.#forget(runner);
  }

  /** While a broker is away the runner goes on with what it has, or is killed too: holes stay open then. */
  async #restart(how: "kill" | "clean"): Promise<number> {
    this.#count(how === "kill" ? "kill -9 of a broker" : "restarts of a broker");
    const dies = this.#random.next() < 0.5;
    await this.#bed.restart(how, async () => {
      await pause(this.#random.next() * second);
      if (!dies) return;
      this.#count("runner killed with a broker");
      await this.#crash(this.#runner);
    });
    if (!dies) return performance.now();
    const again = await this.#bed.inspect();
    this.#where = `runner killed too, ${again} to be read again`;
    this.#overdue += Math.max(0, again - this.#bed.span);
    const ended = performance.now();
    await this.#start();
    return ended;
  }

  #cut(side: "before" | "reply"): Promise<number> {
    const kinds = this.#bed.cuts[side];
    const kind = kinds[Math.floor(this.#random.next() * kinds.length)]!;
    return this.#inject(
      side === "reply" ? "cuts of the reply alone" : "cuts before the request",
      kind,
      "cut",
    );
  }

  #cutKind() {
    const kinds = [...this.#bed.cuts.before, ...this.#bed.cuts.reply];
    return kinds[Math.floor(this.#random.next() * kinds.length)]!;
  }

  async #inject(
    name: string,
    where: Bed["cuts"]["before"][number],
    action: "cut" | "black hole" | { readonly delay: number },
  ): Promise<number> {
    this.#count(name);
    const nth = 1 + Math.floor(this.#random.next() * 3);
    this.#where = `${where.direction} ${where.kind}`;
    const struck = this.#bed.faults.inject({ ...where, nth, action });
    // There may be no such frame before there is something to do.
    const feeding = this.#keepFeeding();
    const within = AbortSignal.timeout(patience);
    const late = new Promise<never>((_, reject) => {
      within.addEventListener("abort", () => reject(new Stuck(`no ${where.kind} in ${patience} ms`)));
    });
    try {
      await Promise.race([struck, late]);
    } finally {
      await feeding.stop();
    }
    return performance.now();
  }

  /** A little at a time, until told to stop. */
  #keepFeeding(): { stop(): Promise<void> } {
    let over = false;
    const fed = (async () => {
      while (!over) {
        await this.#bed.feed(20, ordered);
        await pause(100);
      }
    })();
    return {
      stop: async () => {
        over = true;
        await fed;
      },
    };
  }

  /** A second runner of the same topology comes and goes, in good order or not, so and so often. */
  async #membersComeAndGo(times: number): Promise<number> {
    const family = this.#bed.keepsOrderAmongMembers ? ordered : unordered;
    if (family === unordered) await this.#drain();
    for (let time = 0; time < times; time++) {
      this.#count("members joined and left");
      const second = this.#launch();
      await this.#bed.feed(300, family);
      await this.#works(second);
      await this.#bed.feed(300, family);
      await pause(1_000 + this.#random.next() * 1_000);
      if (this.#random.next() < 0.5) await this.#crash(second);
      else await this.#stop(second);
    }
    const ended = performance.now();
    if (family === unordered) await this.#drain();
    return ended;
  }

  #launch(...more: string[]): Millrace {
    const runner = new Millrace(["run", this.#bed.topology, ...more], this.#bed.env, heap);
    this.#runners.add(runner);
    return runner;
  }

  async #start(): Promise<void> {
    this.#runner = this.#launch();
    await this.#works(this.#runner);
  }

  async #works(runner: Millrace): Promise<void> {
    try {
      await runner.logged(this.#bed.atWork, patience);
    } catch (error) {
      throw new Stuck("a runner does not come to work", { cause: error });
    }
  }

  async #stop(runner: Millrace): Promise<void> {
    const { code, stderr } = await runner.stop();
    if (code !== 0) this.#find("died", `exit code ${code} after SIGTERM: ${stderr.slice(-2_000)}`);
    this.#forget(runner);
  }

  /** Keeps what the ended runner's log says. */
  #forget(runner: Millrace): void {
    this.#losses += this.#bed.losses(runner.stderr);
    this.#runners.delete(runner);
  }

  async #drain(): Promise<void> {
    try {
      await until("all is done", () => this.#runner.over || this.#bed.drained(), patience);
    } catch (error) {
      throw new Stuck(`of ${this.#bed.fed} messages ${await this.#bed.delivered()} are delivered`, {
        cause: error,
      });
    }
  }

  /** A clean stop, and one more run to the end of what is left. */
  async #finish(): Promise<void> {
    await this.#stop(this.#runner);
    const last = this.#launch("--until-idle");
    const { code, stderr } = await Promise.race([
      last.ended,
      pause(patience, { code: "still running", stderr: last.stderr }, { ref: false }),
    ]);
    if (code !== 0) this.#find("stuck", `the last run: ${code}: ${stderr.slice(-2_000)}`);
    if (last.over) this.#forget(last);
    else await this.#crash(last);
    await this.#bed.inspect();
  }

  async #judge(): Promise<Result> {
    const bed = this.#bed;
    const verdict = check(await bed.harvest());
    const { span, admitted } = bed;
    const bound = (this.#crashes + this.#losses) * (span + admitted) + this.#overdue;
    this.#options.log(
      `${verdict.duplicates} duplicates; ${this.#crashes} crashes and ${this.#losses} losses, each of at most ${span} and ${admitted} admitted by an interval, and ${this.#overdue} overdue: ${bound}`,
    );
    for (const id of verdict.lost) this.#find("lost", id);
    for (const pair of verdict.inversions) this.#find("inversions", pair);
    for (const id of [...verdict.misplaced, ...verdict.invented]) this.#find("misplaced", id);
    for (const id of bed.earlyAcks) this.#find("early acks", id);
    for (const regression of bed.regressions) this.#find("commits back", regression);
    const names: Anomaly[] = [
      "lost",
      "inversions",
      "early acks",
      "misplaced",
      "commits back",
      "died",
      "stuck",
    ];
    const anomalies = Object.fromEntries(
      names.map((name) => [name, this.#found.get(name)?.length ?? 0]),
    ) as Record<Anomaly, number>;
    return {
      name: bed.name,
      messages: bed.fed,
      faults: Object.fromEntries(this.#faults),
      samples: bed.samples,
      anomalies,
      examples: [...this.#found].flatMap(([name, list]) => list.slice(0, 3).map((one) => `${name}: ${one}`)),
      duplicates: verdict.duplicates,
      bound,
      memory: this.#memory,
      memoryLimit: bed.memoryLimit(this.#base),
      recovery: this.#recovery,
    };
  }

  /** Follows memory for as long as the ordeal lasts. */
  #watch(): AbortController {
    const over = new AbortController();
    (async () => {
      while (!over.signal.aborted) {
        const sizes = [...this.#runners].map((runner) => runner.memory().catch(() => 0));
        this.#memory = Math.max(this.#memory, ...(await Promise.all(sizes)));
        await pause(second / 4);
      }
    })();
    return over;
  }

  /** Until so many messages are delivered. */
  async #delivers(count: number): Promise<void> {
    try {
      await until(
        "it delivers",
        async () => this.#runner.over || (await this.#bed.delivered()) >= count,
        patience,
      );
    } catch (error) {
      throw new Stuck(`of ${this.#bed.fed} messages ${await this.#bed.delivered()} are delivered`, {
        cause: error,
      });
    }
  }

  #count(name: string, by = 1): void {
    this.#faults.set(name, (this.#faults.get(name) ?? 0) + by);
  }

  #find(anomaly: Anomaly, what: string): void {
    const list = this.#found.get(anomaly);
    if (list === undefined) this.#found.set(anomaly, [what]);
    else list.push(what);
  }
}
