const id = { type: "string" } as const;

/** Where a stored image is: one message for each file that arrived. */
export const storeMeta = {
  type: "object",
  required: ["trace_id", "tenant_id", "patient_id", "study_uid", "series_uid", "sop_uid"],
  properties: {
    trace_id: { type: "string", minLength: 1 },
    tenant_id: id,
    patient_id: id,
    study_uid: id,
    series_uid: id,
    sop_uid: id,
  },
} as const;

/** The state of a series: patient, study and series attributes. */
export const stateMeta = {
  type: "object",
  required: ["tenant_id", "patient_id", "study_uid", "series_uid"],
  properties: { tenant_id: id, patient_id: id, study_uid: id, series_uid: id },
} as const;

/** The attributes of one image. */
export const imageMeta = {
  type: "object",
  required: ["tenant_id", "patient_id", "study_uid", "series_uid", "sop_uid"],
  properties: { tenant_id: id, patient_id: id, study_uid: id, series_uid: id, sop_uid: id },
} as const;
