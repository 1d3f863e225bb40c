package android.app;

public class Application extends android.content.Context {
  private static Application current;

  public Application() { current = this; }
  public static Application current() { return current; }
  public void onCreate() {}
  public void onTrimMemory(int level) {}
}
