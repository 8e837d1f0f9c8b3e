// Before the first paint: the theme and density that this browser chose, so that nothing flashes.
// @ts-check
{
  const root = document.documentElement;
  for (const name of ["theme", "density"]) {
    try {
      const chosen = localStorage.getItem(`eyeline.${name}`);
      if (chosen) root.dataset[name] = chosen;
    } catch {
      // a browser that keeps nothing shows the default
    }
  }
}
