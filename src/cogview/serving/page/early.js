// Sets theme and language before the first paint, so that nothing flashes.
{
  const root = document.documentElement;
  const kept = (name) => {
    try {
      return localStorage.getItem(name);
    } catch {
      return null; // storage may be forbidden
    }
  };
  const theme = kept('cogview-theme');
  if (theme === 'light' || theme === 'dark') root.dataset.theme = theme;
  const language = kept('cogview-language') ?? navigator.language ?? 'en';
  root.lang = language.toLowerCase().startsWith('zh') ? 'zh-CN' : 'en';
}
