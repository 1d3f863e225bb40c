package android.view;

import android.content.Context;

public class View {
  public static final int VISIBLE = 0;
  public static final int GONE = 8;
  private int id;
  private int visibility;
  private boolean enabled = true;
  private OnClickListener listener;
  private CharSequence description;

  public interface OnClickListener {
    void onClick(View view);
  }

  public View(Context context) {}
  public int getId() { return id; }
  public void setId(int id) { this.id = id; }
  public void setVisibility(int visibility) { this.visibility = visibility; }
  public int getVisibility() { return visibility; }
  public void setEnabled(boolean enabled) { this.enabled = enabled; }
  public boolean isEnabled() { return enabled; }
  public void setOnClickListener(OnClickListener listener) { this.listener = listener; }
  public CharSequence getContentDescription() { return description; }
  public void setContentDescription(CharSequence description) { this.description = description; }
  public boolean performClick() {
    if (!enabled || listener == null) return false;
    listener.onClick(this);
    return true;
  }
  public View fakeFind(int wanted) { return id == wanted ? this : null; }
}
