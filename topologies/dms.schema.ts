/** A change of a balance. */
export const request = {
  type: "object",
  required: ["id", "account", "amount"],
  properties: {
    id: { type: "string", minLength: 1 },
    account: { type: "string", minLength: 1 },
    amount: { type: "integer" },
    note: { type: "string" },
  },
} as const;
