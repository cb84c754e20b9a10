import { seededRandom } from "../src/testing/context.ts";

/** A message of the jobs' input. */
export interface Order {
  readonly key: string;
  readonly value: string;
}

const statuses = ["created", "paid", "packed", "shipped", "delivered"];

/**
 * Orders of about 230 bytes, the same for the same seed: `count` of them for `customers` customers, each with
 * a number of its own per customer (`seq`), so that a reader can check order. One in `repeat` is sent twice.
 */
export function* orders(count: number, customers = 1_000, repeat = 0): Generator<Order> {
  const random = seededRandom(7);
  const sequences = new Uint32Array(customers);
  for (let i = 0; i < count; i++) {
    const customer = Math.floor(random.next() * customers);
    const value = JSON.stringify({
      id: `ord-${i}`,
      customer: `customer-${customer}`,
      seq: sequences[customer]!++,
      status: statuses[i % statuses.length],
      amount: Math.round(random.next() * 100_000) / 100,
      currency: "EUR",
      ts: 1_767_225_600_000 + i,
      lines: [
        { sku: `sku-${Math.floor(random.next() * 5_000)}`, qty: 1 + (i % 7) },
        { sku: `sku-${Math.floor(random.next() * 5_000)}`, qty: 1 + (i % 3) },
      ],
    });
    const order = { key: `customer-${customer}`, value };
    yield order;
    if (repeat > 0 && i % repeat === 0) yield order;
  }
}
