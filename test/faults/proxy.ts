import { once } from "node:events";
import { type AddressInfo, createServer, connect as dial, type Server, type Socket } from "node:net";
import { type Direction, FrameSplitter, type Protocol } from "./frames.ts";

export interface Fault {
  readonly direction: Direction;
  /** Of the frame it strikes, as in "Produce" or "publish". Default: any. */
  readonly kind?: string | undefined;
  /** Strikes the n-th such frame from now. Default 1, the next. */
  readonly nth?: number;
  /**
   * `cut`: both sides of the connection are closed, and the frame is not passed on. In direction `request` the
   * broker never sees it; in direction `reply` the broker has done what was asked, and nobody hears of it.
   * `delay`: the frame and all behind it wait for so many ms.
   * `black hole`: the frame and all behind it in this direction vanish, while the connection stays open.
   */
  readonly action: "cut" | "black hole" | { readonly delay: number };
}

interface Armed extends Fault {
  left: number;
  readonly strike: () => void;
}

/** The faults of one or more proxies: what each frame is asked about. */
export class Faults {
  readonly #armed: Armed[] = [];

  /** Arms a fault; resolves when it has struck. It strikes once. */
  inject(fault: Fault): Promise<void> {
    return new Promise((resolve) => {
      this.#armed.push({ ...fault, left: fault.nth ?? 1, strike: resolve });
    });
  }

  /** Forgets what has not struck. */
  disarm(): void {
    this.#armed.length = 0;
  }

  /** What is to happen to this frame; undefined for most. */
  meet(direction: Direction, kind: string): Fault["action"] | undefined {
    for (const fault of this.#armed) {
      if (fault.direction !== direction || (fault.kind !== undefined && fault.kind !== kind)) continue;
      if (--fault.left > 0) continue;
      this.#armed.splice(this.#armed.indexOf(fault), 1);
      fault.strike();
      return fault.action;
    }
    return undefined;
  }
}

/** Hears what one connection carries, in portions of any size; called for each new one. */
export type Listens = () => (direction: Direction, portion: Buffer) => void;

/**
 * A TCP proxy on loopback that understands what it carries, so that a connection can be cut exactly between what
 * a broker did and what its client hears of it.
 */
export class TcpProxy {
  readonly port: number;
  readonly #server: Server;
  readonly #links: Set<Link>;
  #holds = false;

  private constructor(server: Server, links: Set<Link>) {
    this.#server = server;
    this.#links = links;
    this.port = (server.address() as AddressInfo).port;
  }

  /**
   * Listens on `port` (0: any free one) and passes on to `target`, also a port on loopback; `listens` is told of all that
   * arrives, before it is passed on.
   */
  static async start(
    protocol: Protocol,
    faults: Faults,
    port: number,
    target: number,
    listens?: Listens,
  ): Promise<TcpProxy> {
    const links = new Set<Link>();
    const server = createServer((client) => {
      const link = new Link(protocol, faults, client, dial({ host: "127.0.0.1", port: target }), listens);
      if (proxy.#holds) link.hold(true);
      links.add(link);
      link.closed.then(() => links.delete(link));
    });
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
    const proxy = new TcpProxy(server, links);
    return proxy;
  }

  /** Connections open now. */
  get connections(): number {
    return this.#links.size;
  }

  /**
   * From now on nothing is passed on, also of connections to come, or, with false, all that was kept is. What is cut
   * while it is kept is lost.
   */
  hold(holds: boolean): void {
    this.#holds = holds;
    for (const link of this.#links) link.hold(holds);
  }

  /** Cuts every connection, wherever it stands. */
  cutAll(): void {
    for (const link of [...this.#links]) link.cut();
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.cutAll();
    await closed;
  }
}

/** One client's connection and the one to the broker that belongs to it. */
class Link {
  readonly closed: Promise<void>;
  readonly #client: Socket;
  readonly #broker: Socket;
  readonly #flows: readonly Flow[];

  constructor(protocol: Protocol, faults: Faults, client: Socket, broker: Socket, listens?: Listens) {
    this.#client = client;
    this.#broker = broker;
    const hear = listens?.();
    if (hear !== undefined) {
      client.on("data", (portion) => hear("request", portion));
      broker.on("data", (portion) => hear("reply", portion));
    }
    const looks = protocol();
    const cut = () => this.cut();
    this.#flows = [
      new Flow("request", new FrameSplitter(looks.request), faults, client, broker, cut),
      new Flow("reply", new FrameSplitter(looks.reply), faults, broker, client, cut),
    ];
    this.closed = Promise.all([client, broker].map(ended)).then(() => {});
  }

  hold(holds: boolean): void {
    for (const flow of this.#flows) flow.hold(holds);
  }

  /** What was passed on before arrives; then both sides see the end. */
  cut(): void {
    this.#client.destroySoon();
    this.#broker.destroySoon();
  }
}

/** Resolves when the socket is closed; its errors are what this proxy is for. */
function ended(socket: Socket): Promise<void> {
  socket.setNoDelay(true);
  socket.on("error", () => {});
  return new Promise((resolve) => socket.once("close", () => resolve()));
}

/** One direction of a connection. */
class Flow {
  readonly #direction: Direction;
  readonly #frames: FrameSplitter;
  readonly #faults: Faults;
  readonly #from: Socket;
  readonly #to: Socket;
  readonly #cut: () => void;
  /** What waits for a delay's end; undefined while there is none. */
  #waiting: Buffer[] | undefined;
  #over = false;
  #swallows = false;
  #held = false;

  constructor(
    direction: Direction,
    frames: FrameSplitter,
    faults: Faults,
    from: Socket,
    to: Socket,
    cut: () => void,
  ) {
    this.#direction = direction;
    this.#frames = frames;
    this.#faults = faults;
    this.#from = from;
    this.#to = to;
    this.#cut = cut;
    from.on("data", (portion) => this.#pass(portion));
    from.once("close", () => {
      if (this.#waiting === undefined) to.destroySoon();
    });
    to.on("drain", () => {
      this.#resume();
    });
  }

  hold(holds: boolean): void {
    this.#held = holds;
    if (holds) this.#from.pause();
    else this.#resume();
  }

  #resume(): void {
    if (this.#waiting === undefined && !this.#held) this.#from.resume();
  }

  #pass(portion: Buffer): void {
    if (this.#swallows || this.#over) return;
    for (const { kind, bytes } of this.#frames.split(portion)) {
      const action = kind === undefined ? undefined : this.#faults.meet(this.#direction, kind);
      if (action === "cut") {
        this.#over = true;
        this.#cut();
        return;
      }
      if (action === "black hole") {
        this.#swallows = true;
        return;
      }
      if (action !== undefined) this.#delay(action.delay);
      if (this.#waiting !== undefined) this.#waiting.push(bytes);
      else if (!this.#to.write(bytes)) this.#from.pause();
    }
  }

  #delay(ms: number): void {
    // What comes behind a delayed frame is delayed with it already.
    if (this.#waiting !== undefined) return;
    const waiting: Buffer[] = [];
    this.#waiting = waiting;
    setTimeout(() => {
      this.#waiting = undefined;
      for (const bytes of waiting) this.#to.write(bytes);
      if (this.#from.closed) this.#to.destroySoon();
      else this.#resume();
    }, ms);
    this.#from.pause();
  }
}
