import { Ajv } from "ajv";
import { LRUCache } from "lru-cache";
import { order } from "../../topologies/orders.schema.ts";

const validate = new Ajv({ ownProperties: true }).compile<{ id: string; customer: string }>(order);

/** What every hand-written peer does with an order before it goes on: parse, and check by the same schema. */
export function checkedOrder(value: Buffer): { readonly id: string; readonly customer: string } {
  const parsed: unknown = JSON.parse(value.toString());
  if (!validate(parsed)) throw new Error("not an order");
  return parsed;
}

/** The ids of late, as many as the topology remembers. */
export function recentIds(max = 100_000): LRUCache<string, true> {
  return new LRUCache({ max });
}

/** What the benchmark tells a job. */
export function told(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set`);
  return value;
}
