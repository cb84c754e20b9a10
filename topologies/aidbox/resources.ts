// How an application changes resources so that each change is told of: what belongs to the topologies beside this file
// and runs in the application. It needs no more of Millrace than the table "outbox", which
// sql({ url }).outbox({ table: "outbox" }) prints the statements of.

/** What is used of a database's client, such as `pg`: one connection. */
export interface Client {
  query(text: string, values?: unknown[]): Promise<unknown>;
}

export interface Change {
  readonly resourceType: string;
  readonly id: string;
  /** The resource, as JSON. */
  readonly resource: string;
  /** The notification about it, as JSON. */
  readonly notification: string;
}

export const resourceTable =
  "CREATE TABLE resource (type text, id text, body jsonb NOT NULL, PRIMARY KEY (type, id))";

const change =
  "INSERT INTO resource (type, id, body) VALUES ($1, $2, $3) ON CONFLICT (type, id) DO UPDATE SET body = excluded.body";
// After the resource, whose row lock keeps two changes of it in order.
const tell = "INSERT INTO outbox (key, value) VALUES (convert_to($1, 'UTF8'), convert_to($2, 'UTF8'))";

/** At least once: changes and notifications are committed together, or not at all. */
export async function changeAndTell(client: Client, changes: readonly Change[]): Promise<void> {
  await inTransaction(client, async () => {
    for (const { resourceType, id, resource, notification } of changes) {
      await client.query(change, [resourceType, id, resource]);
      await client.query(tell, [`${resourceType}/${id}`, notification]);
    }
  });
}

/** Best effort: notifications are emitted once the changes are committed, and only then. */
export async function changeThenTell(
  client: Client,
  changes: readonly Change[],
  emit: (notification: string) => void,
): Promise<void> {
  await inTransaction(client, async () => {
    for (const { resourceType, id, resource } of changes)
      await client.query(change, [resourceType, id, resource]);
  });
  for (const { notification } of changes) emit(notification);
}

async function inTransaction(client: Client, work: () => Promise<void>): Promise<void> {
  await client.query("BEGIN");
  try {
    await work();
  } catch (error) {
    await client.query("ROLLBACK");
    throw error;
  }
  await client.query("COMMIT");
}
