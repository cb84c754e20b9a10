export async function smoke(_save: boolean): Promise<boolean> {
  return true;
}
