/** An order of a shop. */
export const order = {
  type: "object",
  required: ["id", "customer", "status", "amount", "lines"],
  properties: {
    id: { type: "string", pattern: "^ord-" },
    customer: { type: "string", minLength: 1 },
    status: { enum: ["created", "paid", "packed", "shipped", "delivered"] },
    amount: { type: "number", minimum: 0 },
    currency: { type: "string" },
    ts: { type: "integer" },
    lines: {
      type: "array",
      minItems: 1,
      items: {
        type: "object",
        required: ["sku", "qty"],
        properties: { sku: { type: "string" }, qty: { type: "integer", minimum: 1 } },
      },
    },
  },
} as const;
