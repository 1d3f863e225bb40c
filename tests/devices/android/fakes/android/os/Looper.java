package android.os;

import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/** The main thread. */
public class Looper {
  static final ExecutorService MAIN =
      Executors.newSingleThreadExecutor(
          work -> {
            Thread thread = new Thread(work, "main-looper");
            thread.setDaemon(true);
            return thread;
          });
  private static final Looper LOOPER = new Looper();

  public static Looper getMainLooper() { return LOOPER; }
}
