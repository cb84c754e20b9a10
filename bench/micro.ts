export const microJobs: readonly { name: string; run(pairs: number, save: boolean): Promise<void> }[] = [];
